# Mask2Former as published for ADE20K and COCO-Stuff: 1024 channels, 32 heads, 200 queries.
_base_ = 'mask2former.py'
attention = dict(embed_dims=1024, num_heads=32)
ffn = dict(embed_dims=1024, feedforward_channels=4096)
position = dict(num_feats=512)
model = dict(
    decode_head=dict(
        feat_channels=1024,
        out_channels=1024,
        num_queries=200,
        pixel_decoder=dict(
            encoder=dict(layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)), positional_encoding=position
        ),
        positional_encoding=position,
        transformer_decoder=dict(
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn),
        ),
    ),
)
