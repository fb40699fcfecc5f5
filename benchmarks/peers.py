"""The same MAE step made from the parts of lightly, MONAI and Hugging Face, used as their own examples use them."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain_mae import cut
from benchmarks.sizes import Work


class LightlyMae(nn.Module):
    def __init__(self, work: Work) -> None:
        super().__init__()
        from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
        from timm.models.vision_transformer import VisionTransformer

        self.work = work
        vit = VisionTransformer(
            img_size=work.image,
            patch_size=work.patch,
            embed_dim=work.width,
            depth=work.depth,
            num_heads=work.heads,
            num_classes=0,
        )
        self.backbone = MaskedVisionTransformerTIMM(vit=vit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated by lightly in favour of a successor; the class asked for here
            self.decoder = MAEDecoderTIMM(
                num_patches=work.tokens,
                patch_size=work.patch,
                embed_dim=work.width,
                decoder_embed_dim=work.decoder_width,
                decoder_depth=work.decoder_depth,
                decoder_num_heads=work.decoder_heads,
            )

    def forward(self, images: Tensor) -> Tensor:
        from lightly.models import utils

        size = (len(images), self.work.tokens + 1)
        keep, hidden = utils.random_token_mask(size=size, mask_ratio=self.work.ratio, device=images.device)
        encoded = self.decoder.embed(self.backbone.encode(images=images, idx_keep=keep))
        full = utils.repeat_token(self.decoder.mask_token, size)
        full = utils.set_at_index(full, keep, encoded.type_as(full))
        decoded = self.decoder.decode(full)
        prediction = self.decoder.predict(utils.get_at_index(decoded, hidden))
        target = utils.get_at_index(utils.patchify(images, self.work.patch), hidden - 1)  # the class token comes first
        return F.mse_loss(prediction, target)


class MonaiMae(nn.Module):
    def __init__(self, work: Work) -> None:
        super().__init__()
        from monai.networks.nets import MaskedAutoEncoderViT

        self.work = work
        self.model = MaskedAutoEncoderViT(
            in_channels=3,
            img_size=work.image,
            patch_size=work.patch,
            hidden_size=work.width,
            mlp_dim=4 * work.width,
            num_layers=work.depth,
            num_heads=work.heads,
            masking_ratio=work.ratio,
            decoder_hidden_size=work.decoder_width,
            decoder_mlp_dim=4 * work.decoder_width,
            decoder_num_layers=work.decoder_depth,
            decoder_num_heads=work.decoder_heads,
            spatial_dims=2,
            qkv_bias=True,
        )

    def forward(self, images: Tensor) -> Tensor:
        prediction, hidden = self.model(images)
        error = (prediction - cut(images, self.work.patch)).square().mean(-1)
        return (error * hidden).sum() / hidden.sum()


class HuggingFaceMae(nn.Module):
    def __init__(self, work: Work) -> None:
        super().__init__()
        from transformers import ViTMAEConfig, ViTMAEForPreTraining

        config = ViTMAEConfig(
            hidden_size=work.width,
            num_hidden_layers=work.depth,
            num_attention_heads=work.heads,
            intermediate_size=4 * work.width,
            image_size=work.image,
            patch_size=work.patch,
            decoder_hidden_size=work.decoder_width,
            decoder_num_hidden_layers=work.decoder_depth,
            decoder_num_attention_heads=work.decoder_heads,
            decoder_intermediate_size=4 * work.decoder_width,
            mask_ratio=work.ratio,
            norm_pix_loss=False,
            attn_implementation="sdpa",
        )
        self.model = ViTMAEForPreTraining(config)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(pixel_values=images).loss


PEERS: dict[str, Callable[[Work], nn.Module]] = {
    "lightly": LightlyMae,
    "monai": MonaiMae,
    "hugging face": HuggingFaceMae,
}
PACKAGES = {"lightly": "lightly", "monai": "monai", "hugging face": "transformers"}


def version(peer: str) -> str | None:
    """Give the installed version of a peer, or None."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed(PACKAGES[peer])
    except PackageNotFoundError:
        return None
