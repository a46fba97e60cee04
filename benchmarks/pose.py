"""SDPose at full size: the plain way against ours, crops to keypoints. ``python benchmarks/pose.py [--size 384 512]``

Plain, as the official evaluator works: for the crop and then for its mirror image, the empty prompt through the text
encoder, the autoencoder's encoder, and the whole U-Net with hooks on its up-blocks; the head on what the hooks saw; the
mean of both; UDP + DARK decoding person by person in numpy and OpenCV. (It takes the posterior's mean, where the
official one draws, so that both sides give the same keypoints.) Ours: SDPosePredictor's network, folded: one batch of
crop and mirror image, no text encoder, a U-Net that ends at the tap; and our decoder.

Both sides have the same random weights of Stable Diffusion 2's size (--small: of a small one, to try the script) and
get the same crop. They run in turns in one process, now the one first, now the other; the ratio is the median over
pairs. On one CPU thread the time is that of the processor (other work on the machine does not count), else that of the
wall. With a GPU ours is bfloat16 and compiled, unless --eager.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pose_decode import decode_person

from priorscope.evaluation.tables import print_table
from priorscope_pose.sdpose.head import HeatmapHead
from priorscope_pose.sdpose.network import SDPoseNetwork, tap_channels
from priorscope_pose.sdpose.predictor import SDPosePredictor
from priorscope_pose.sdpose.settings import PUBLISHED, PoseSettings
from priorscope_pose.skeletons import skeleton

TEXT = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
SMALL_UNET = {
    "block_out_channels": (64, 128, 256, 256),
    "attention_head_dim": (1, 2, 4, 4),
    "cross_attention_dim": 64,
}
SMALL_VAE = {"block_out_channels": (32, 64, 128, 128)}


class Plain:
    """The official evaluator's calls, one after the other."""

    def __init__(self, small: bool) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        from priorscope.backbones.stable_diffusion import SD2_UNET, SD_VAE, TASK_SWITCHER

        torch.manual_seed(0)
        sizes = {**SD2_UNET, **(SMALL_UNET if small else {}), **TASK_SWITCHER}
        self.unet = UNet2DConditionModel(**sizes).eval().requires_grad_(False)
        self.vae = AutoencoderKL(**{**SD_VAE, **(SMALL_VAE if small else {})}).eval().requires_grad_(False)
        width = sizes["cross_attention_dim"]
        text = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 1} if small else TEXT
        self.text = CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_act="gelu", **text)).eval()
        angles = torch.tensor([[1.0, 0.0]])
        self.task = torch.cat([angles.sin(), angles.cos()], -1)

    def to(self, device: str) -> Plain:
        self.unet.to(device), self.vae.to(device), self.text.to(device)
        self.task = self.task.to(device)
        return self

    @torch.no_grad()
    def prompt(self, device: Any = "cpu") -> torch.Tensor:
        return self.text(torch.tensor([[49406, 49407]], device=device)).last_hidden_state

    def heatmaps(self, images: torch.Tensor, head: HeatmapHead) -> torch.Tensor:
        rows = len(images)
        state = self.prompt(images.device).expand(rows, -1, -1)
        latents = self.vae.encode(images).latent_dist.mean * self.vae.config.scaling_factor
        seen: list[torch.Tensor] = []
        hooks = [
            block.register_forward_hook(lambda module, given, output: seen.append(output))
            for block in self.unet.up_blocks
        ]
        self.unet(latents, 999, encoder_hidden_states=state, class_labels=self.task.expand(rows, -1))
        for hook in hooks:
            hook.remove()
        return head(next(maps for maps in seen[::-1] if maps.shape[1] == head.channels))

    @torch.no_grad()
    def keypoints(self, crops: NDArray[np.uint8], head: HeatmapHead, flip: list[int]) -> NDArray[np.floating]:
        device = self.task.device
        images = torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float() / 255 * 2 - 1
        straight, mirrored = self.heatmaps(images, head), self.heatmaps(images.flip(-1), head)
        heatmaps = (straight + mirrored.flip(-1)[:, flip]) * 0.5
        return np.stack([decode_person(person)[0] for person in heatmaps.cpu().numpy()])


def people(rows: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Smooth random pictures, uint8 [rows, height, width, 3]."""
    noise = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (rows, 3, 16, 12)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(noise, size[::-1], mode="bicubic").clamp(-1, 1)
    return ((smooth + 1) * 127.5).byte().permute(0, 2, 3, 1).contiguous().numpy()


def compare(plain: Plain, joints: int, options: argparse.Namespace, device: str) -> dict[str, str]:
    published = PUBLISHED[joints]
    size = tuple(options.size)
    settings = PoseSettings(published.skeleton, published.tap, size, (size[0] // 4, size[1] // 4))
    channels = tap_channels(plain.unet, published.tap)
    assert channels is not None
    torch.manual_seed(1)
    head = HeatmapHead(channels, joints).eval().requires_grad_(False)
    torch.nn.init.normal_(head.final_layer.weight, std=channels**-0.5)
    from priorscope.backbones.latents import AutoencoderSpace

    space = AutoencoderSpace(copy.deepcopy(plain.vae))
    network = SDPoseNetwork(copy.deepcopy(plain.unet), copy.deepcopy(head), space, plain.prompt(), settings)
    gpu = device == "cuda"
    if gpu:
        network.unet.to(torch.bfloat16)
    network.eval().requires_grad_(False).to(device)
    space.to(device)
    network.fold()
    if gpu and not options.eager:
        network.compile()
    predictor = SDPosePredictor(network, device=device)
    plain.to(device)
    head.to(device)
    crops, flip = people(options.people, size), list(skeleton(published.skeleton).flip_indices)

    def ours() -> NDArray[np.floating]:
        return predictor.codec.decode(predictor.heatmaps(crops))[0].cpu().numpy()

    def theirs() -> NDArray[np.floating]:
        import pose_decode

        pose_decode.HEATMAP, pose_decode.INPUT = settings.heatmap_size, size  # whose maps decode_person is given
        return plain.keypoints(crops, head, flip)

    clock = time.process_time if not gpu and torch.get_num_threads() == 1 else time.perf_counter
    if gpu or options.small:
        ours(), theirs()  # kernels are chosen and compiled at the first call
    ratios, answers = [], {}
    for repeat in range(options.repeats):
        seconds = {}
        for side in (ours, theirs) if repeat % 2 == 0 else (theirs, ours):
            begin = clock()
            answers[side] = side()
            seconds[side] = clock() - begin
        ratios.append(seconds[ours] / seconds[theirs])
        print(f"{joints} joints: ratio {ratios[-1]:.3f}", flush=True)
    gap = np.median(np.abs(answers[ours] - answers[theirs]))
    return {
        "keypoints": f"{joints} ({published.tap})",
        "crops": f"{options.people} of {size[0]} x {size[1]}",
        "ours / plain": f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
        "keypoints differ by (median)": f"{gap:.1e} px",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(768, 1024), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--small", action="store_true", help="small networks, to try the script")
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--joints", type=int, nargs="+", choices=sorted(PUBLISHED), default=sorted(PUBLISHED))
    parser.add_argument("--eager", action="store_true", help="on a GPU: do not compile")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    print(f"{'small networks' if options.small else 'networks of full size'} on {where}, torch {torch.__version__}")
    plain = Plain(options.small)
    print_table([compare(plain, joints, options, device) for joints in options.joints])


if __name__ == "__main__":
    main()
