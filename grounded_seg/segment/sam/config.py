"""The sizes of a Segment Anything model, from the published ViT-H down to a few megabytes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SamConfig:
    """The sizes of one `Sam`; what isn't here is the same in every published one.

    Raises:
        ValueError: If the sizes don't fit together.
    """

    image_size: int
    """Side of the square that the encoder sees, in pixels."""
    patch_size: int
    """Side of one patch, in pixels."""
    encoder_embed_dim: int
    encoder_depth: int
    encoder_num_heads: int
    encoder_global_attn_indexes: tuple[int, ...]
    """Blocks that attend over the whole image, counted from 0; the others attend within windows."""
    window_size: int
    """Side of an attention window, in patches; 0 makes every block global."""
    prompt_embed_dim: int
    """Channels of the image embedding, the prompts and the decoder (`out_chans` of the encoder)."""
    decoder_depth: int
    decoder_mlp_dim: int
    decoder_num_heads: int
    iou_head_hidden_dim: int

    def __post_init__(self) -> None:
        """Refuse sizes that the modules would only fail on later."""
        # The decoder's attention halves its width before splitting it into heads.
        divisions = (
            ("image_size", self.image_size, "patch_size", self.patch_size),
            ("encoder_embed_dim", self.encoder_embed_dim, "encoder_num_heads", self.encoder_num_heads),
            ("prompt_embed_dim", self.prompt_embed_dim, "2 * decoder_num_heads", 2 * self.decoder_num_heads),
            ("prompt_embed_dim", self.prompt_embed_dim, "the mask upscaling", 8),
        )
        for name, value, divisor_name, divisor in divisions:
            if value <= 0 or divisor <= 0 or value % divisor:
                raise ValueError(f"{name} is {value}, it must be a multiple of {divisor_name} ({divisor})")
        if any(not 0 <= index < self.encoder_depth for index in self.encoder_global_attn_indexes):
            raise ValueError(f"encoder_global_attn_indexes leave the {self.encoder_depth} blocks of the encoder")

    @property
    def grid_size(self) -> int:
        """Side of the image embedding, in patches."""
        return self.image_size // self.patch_size

    @classmethod
    def vit_b(cls) -> "SamConfig":
        """The published ViT-B: 94 M parameters."""
        return cls._published(embed_dim=768, depth=12, num_heads=12, global_attn_indexes=(2, 5, 8, 11))

    @classmethod
    def vit_l(cls) -> "SamConfig":
        """The published ViT-L: 312 M parameters."""
        return cls._published(embed_dim=1024, depth=24, num_heads=16, global_attn_indexes=(5, 11, 17, 23))

    @classmethod
    def vit_h(cls) -> "SamConfig":
        """The published ViT-H: 641 M parameters."""
        return cls._published(embed_dim=1280, depth=32, num_heads=16, global_attn_indexes=(7, 15, 23, 31))

    @classmethod
    def _published(
        cls, *, embed_dim: int, depth: int, num_heads: int, global_attn_indexes: tuple[int, ...]
    ) -> "SamConfig":
        return cls(
            image_size=1024,
            patch_size=16,
            encoder_embed_dim=embed_dim,
            encoder_depth=depth,
            encoder_num_heads=num_heads,
            encoder_global_attn_indexes=global_attn_indexes,
            window_size=14,
            prompt_embed_dim=256,
            decoder_depth=2,
            decoder_mlp_dim=2048,
            decoder_num_heads=8,
            iou_head_hidden_dim=256,
        )
