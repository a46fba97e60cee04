"""Reading and writing images, arrays and video; samples that are built in."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "ImageFile": "images",
        "StereoSample": "samples",
        "VideoFrame": "video",
        "VideoInfo": "video",
        "VideoWriter": "video",
        "atomic_path": "files",
        "check_rgb": "images",
        "find_images": "images",
        "is_video": "images",
        "motorcycle": "samples",
        "photo": "samples",
        "read_array": "arrays",
        "read_image": "images",
        "read_json": "json_file",
        "read_video": "video",
        "read_video_info": "video",
        "refuse_existing": "files",
        "refuse_overwrite": "files",
        "write_npy": "arrays",
        "write_npz": "arrays",
        "write_png": "images",
        "write_text": "files",
        "write_video": "video",
    },
)
