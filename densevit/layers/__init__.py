"""Building blocks shared by backbones, necks and heads. None of them knows a task."""

from densevit.layers.attention import AttentionTap, ReducedAttention, SelfAttention, attend
from densevit.layers.by_axes import BATCH_NORMS, CONVS
from densevit.layers.channel_norm import ChannelNorm
from densevit.layers.channels_last import POINTWISE_CONVS, ChannelsLastGELU, PointwiseConv2d, channels_last
from densevit.layers.class_attention import ClassAttentionBlock
from densevit.layers.cross_covariance import CrossCovarianceAttention
from densevit.layers.depthwise_attention import DepthwiseReducedAttention
from densevit.layers.drop_path import DropPath, drop_path_rates
from densevit.layers.fourier_position import FourierPosition
from densevit.layers.freeze import freeze
from densevit.layers.inflate import inflate, inflate_all
from densevit.layers.init import init_lecun, init_linear, init_weights, init_xavier
from densevit.layers.inverted_residual import InvertedResidualFFN
from densevit.layers.mlp import GELUS, MLP, MixFFN
from densevit.layers.pad import pad_to_multiple
from densevit.layers.patch_embed import OverlapPatchEmbed, PatchEmbed, halving_convs
from densevit.layers.pooling_attention import PoolingAttention
from densevit.layers.pos_embed import fit_positions, resize_positions
from densevit.layers.position_bias import resize_bias
from densevit.layers.rel_pos import relative_bias, resize_table
from densevit.layers.shape import ceil_div, crop, is_known, pad_stack, pointwise, resize, same_size, to_map, to_tokens
from densevit.layers.transformer_block import TransformerBlock
from densevit.layers.windows import from_windows, to_windows

__all__ = [
    "BATCH_NORMS",
    "CONVS",
    "GELUS",
    "MLP",
    "POINTWISE_CONVS",
    "AttentionTap",
    "ChannelNorm",
    "ChannelsLastGELU",
    "ClassAttentionBlock",
    "CrossCovarianceAttention",
    "DepthwiseReducedAttention",
    "DropPath",
    "FourierPosition",
    "InvertedResidualFFN",
    "MixFFN",
    "OverlapPatchEmbed",
    "PatchEmbed",
    "PointwiseConv2d",
    "PoolingAttention",
    "ReducedAttention",
    "SelfAttention",
    "TransformerBlock",
    "attend",
    "ceil_div",
    "channels_last",
    "crop",
    "drop_path_rates",
    "fit_positions",
    "freeze",
    "from_windows",
    "halving_convs",
    "inflate",
    "inflate_all",
    "init_lecun",
    "init_linear",
    "init_weights",
    "init_xavier",
    "is_known",
    "pad_stack",
    "pad_to_multiple",
    "pointwise",
    "relative_bias",
    "resize",
    "resize_bias",
    "resize_positions",
    "resize_table",
    "same_size",
    "to_map",
    "to_tokens",
    "to_windows",
]
