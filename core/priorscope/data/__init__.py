"""Reading and writing images, arrays and video; samples that are built in."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "ImageFile": "images",
        "atomic_path": "files",
        "find_images": "images",
        "is_video": "images",
        "read_image": "images",
        "refuse_overwrite": "files",
        "write_png": "images",
        "write_text": "files",
    },
)
