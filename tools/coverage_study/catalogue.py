"""The architectures that are tried: the smallest of each line of timm, torchvision's builders, transformers' types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Source = Literal["timm", "torchvision", "transformers"]

TIMM = """
    cait_xxs24_224:3 coat_lite_tiny convit_tiny:3 convnext_zepto_rms cpubone_nano crossvit_9_240 csatv2 darknet17
    cspnext_tiny davit_tiny deit_tiny_patch16_224:3 densenet121 dla46_c dpn48b edgenext_xx_small efficientformer_l1
    efficientformerv2_s0 tinynet_e efficientvim_m1 efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224:3
    fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny ghostnet_050 hardcorenas_a hgnetv2_b0 hiera_tiny_224
    hieradet_small hrnet_w18_small iformer_t inception_next_atto lcnetv2_small levit_128s lowformer_b0
    mambaout_femto coatnet_nano_rw_224 poolformer_s12 resmlp_12_224 lcnet_035 mobilevit_xxs mvitv2_tiny nest_tiny
    nextvit_small nf_resnet26 pit_ti_224 pvt_v2_b0 rdnet_tiny regnetx_002 repghostnet_050 repvit_m0_9
    res2net50_14w_8s resnest14d resnet10t resnetv2_18 rexnet_100 selecsls42 legacy_seresnet18 sequencer2d_s shvit_s1
    skresnet18 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224
    tiny_vit_5m_224 tnt_s_patch16_224:3 twins_svt_small visformer_tiny vit_tiny_patch16_224:3
    vit_tiny_r_s16_p8_224:3 vit_relpos_small_patch16_224:3 vitamin_small_224 volo_d1_224 ese_vovnet19b_slim_dw
    xception41 xcit_nano_12_p16_224:3 gernet_s botnet26t_256 convmixer_768_32:3 beit_base_patch16_224:3
    naflexvit_base_patch16_gap:3 samvit_base_patch16_224:3 deepseek_vit_412m:3 gemma4_vit_167m:3 qwen3_vit_88m:3
    tresnet_m inception_v3 legacy_xception resnet18d resnet50_gn resnetaa34d resnetblur18 ecaresnet26t
    seresnext26t_32x4d resnext50_32x4d resnetrs50 resnetv2_50d_gn resnetv2_50x1_bit resnetv2_50d_evos
    resnetv2_50d_frn repvgg_a0 mobileone_s0 gcresnext26ts bat_resnext26ts eca_resnext26ts regnetz_b16 resnet51q
    resnet50_mlp halonet26t lambda_resnet26t eca_halonext26ts sebotnet33ts_256 regnety_002 regnetz_005
    regnety_040_sgn regnetv_040 nf_regnet_b0 eca_nfnet_l0 nf_seresnet26 efficientnet_b0 efficientnet_b0_gn
    efficientnet_lite0 efficientnet_es efficientnet_blur_b0 efficientnet_cc_b0_4e efficientnetv2_rw_t
    gc_efficientnetv2_rw_t tf_efficientnet_b0 tf_mixnet_s mixnet_s mnasnet_050 semnasnet_050 mobilenetv1_100
    mobilenetv2_035 mobilenet_edgetpu_v2_xs fbnetc_100 spnasnet_100 mobilenetv3_small_050
    tf_mobilenetv3_small_minimal_100 mobilenetv4_conv_small_035 mobilenetv4_conv_blur_medium
    mobilenetv4_hybrid_medium fbnetv3_b convnext_atto convnext_atto_ols convnextv2_atto convnext_tiny_hnf
    cspresnet50 cspresnext50 cs3darknet_focus_s cs3darknet_s sedarknet21 darknetaa53 densenetblur121d dla46x_c
    dla60_res2net dla34 ese_vovnet19b_dw eca_vovnet39b vovnet39a ghostnetv2_100 ghostnetv3_050 hgnet_tiny starnet_s1
    rexnetr_100 skresnext50_32x4d res2next50 caformer_s18 convformer_s18 poolformerv2_s12 gmixer_12_224
    gmlp_ti16_224 mixer_s32_224 maxvit_pico_rw_256 maxvit_rmlp_pico_rw_256 coatnet_rmlp_nano_rw_224
    coatnext_nano_rw_224 maxxvitv2_nano_rw_256 coat_tiny levit_conv_128s mobilevitv2_050 pvt_v2_b2_li
    twins_pcpvt_small crossvit_9_dagger_240 focalnet_tiny_lrf hiera_small_abswin_256
    deit_tiny_distilled_patch16_224:3 vit_wee_patch16_reg1_gap_256:3 vit_srelpos_small_patch16_224:3
    swin_s3_tiny_224 xception41p legacy_seresnext26_32x4d vgg11_bn beitv2_base_patch16_224:3
    deit3_small_patch16_224:3 vit_small_patch16_rope_224:3 vit_small_patch16_rope_mixed_ape_224:3
    vit_small_patch16_dinov3:3 vit_pe_core_tiny_patch16_384:3 vit_base_patch16_clip_224:3
    vit_base_patch16_clip_quickgelu_224:3 vit_base_patch16_siglip_gap_224:3 vit_base_patch16_siglip_224:3
    vit_small_patch14_dinov2:3 vit_base_patch16_rpn_224:3 vit_base_patch16_xp_224:3 flexivit_small:3
    aimv2_large_patch14_224:3 beit3_base_patch16_224:3 eva02_base_patch16_clip_224:3 inception_v4
    inception_resnet_v2 vgg11 nasnetalarge pnasnet5large mobilenetv5_300m
"""
"""Names of timm in the order in which they are tried: first one of each of its model modules, then further lines.

With a number behind a colon so many blocks are built and not all: those of a Transformer are alike, and three of them
show what twelve do.
"""

TORCHVISION = """
    resnet18 mobilenet_v2 mobilenet_v3_small squeezenet1_1 shufflenet_v2_x0_5 mnasnet0_5 efficientnet_b0 regnet_x_400mf
    regnet_y_400mf densenet121 googlenet inception_v3 alexnet vgg11 vgg11_bn convnext_tiny swin_t swin_v2_t maxvit_t
    vit_b_32 resnext50_32x4d wide_resnet50_2 efficientnet_v2_s
    lraspp_mobilenet_v3_large deeplabv3_mobilenet_v3_large fcn_resnet50 deeplabv3_resnet50
    ssdlite320_mobilenet_v3_large retinanet_resnet50_fpn fcos_resnet50_fpn ssd300_vgg16
    fasterrcnn_mobilenet_v3_large_320_fpn fasterrcnn_mobilenet_v3_large_fpn fasterrcnn_resnet50_fpn
    fasterrcnn_resnet50_fpn_v2 retinanet_resnet50_fpn_v2 maskrcnn_resnet50_fpn maskrcnn_resnet50_fpn_v2
    keypointrcnn_resnet50_fpn
    mnasnet0_75 mnasnet1_0 mnasnet1_3 squeezenet1_0 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0
    mobilenet_v3_large resnet34 resnet50 regnet_x_800mf regnet_y_800mf regnet_x_1_6gf regnet_y_1_6gf regnet_x_3_2gf
    regnet_y_3_2gf efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 densenet169 vgg13 vgg13_bn vgg16
    vgg16_bn vgg19 vgg19_bn resnet101 swin_s swin_v2_s convnext_small vit_b_16 densenet201 densenet161 resnet152
    fcn_resnet101 deeplabv3_resnet101 regnet_x_8gf regnet_y_8gf resnext101_32x8d resnext101_64x4d wide_resnet101_2
    efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_m efficientnet_v2_l regnet_x_16gf regnet_y_16gf
    regnet_x_32gf regnet_y_32gf swin_b swin_v2_b convnext_base convnext_large vit_l_16 vit_l_32 vit_h_14 regnet_y_128gf
"""

TRANSFORMERS = """
    bert vit wav2vec2 distilbert roberta gpt2 llama convnext swin whisper t5 albert electra deberta-v2 dinov2 clip
    siglip segformer mobilevit resnet audio-spectrogram-transformer hubert wavlm bart qwen2 mistral gemma2 opt
    modernbert deit beit levit pvt_v2 regnet mobilenet_v2 efficientnet poolformer mpnet xlm-roberta camembert deberta
    fnet longformer big_bird squeezebert mobilebert convbert funnel gpt_neo gptj gpt_neox bloom falcon phi qwen3
    gemma gemma3_text mixtral mbart mt5 umt5 bit convnextv2 cvt data2vec-vision dinov2_with_registers donut-swin
    focalnet hiera ijepa metaclip_2 mobilenet_v1 mobilevitv2 pvt swiftformer swinv2 textnet vit_msn data2vec-audio sew
    sew-d unispeech unispeech-sat wav2vec2-bert wav2vec2-conformer arcee bigbird_pegasus biogpt canine ctrl
    data2vec-text deepseek_v3 diffllama doge ernie esm esmc eurobert exaone4 flaubert glm glm4 gpt-sw3 gpt_bigcode
    gpt_oss gte helium hunyuan_v1_dense hunyuan_v1_moe ibert jetmoe jina_embeddings_v3 layoutlm luke markuplm
    megatron-bert minicpm3 minimax ministral ministral3 modernbert-decoder mpt mra mvp nemotron nomic_bert nystromformer
    olmo olmo2 olmo3 openai-gpt persimmon phi3 phimoe plbart qwen2_moe qwen3_moe rembert roberta-prelayernorm roc_bert
    roformer seed_oss smollm3 stablelm starcoder2 xlm xlm-roberta-xl xmod yoso
"""
"""Types of transformers that classify images, sounds or texts, those that are used most first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One architecture.

    Args:
        source: the package that has it.
        name: what it is called there.
        options: what its builder is given besides.
    """

    source: Source
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A name for its file, unique among all."""
        return f"{self.source}-{self.name}"


def subjects() -> list[Subject]:
    """All of them, those that cover most first.

    >>> found = subjects()
    >>> len({each.key for each in found}) == len(found), found[0].key
    (True, 'timm-cait_xxs24_224')
    """
    timm = []
    for word in TIMM.split():
        name, _, depth = word.partition(":")
        timm.append(Subject(source="timm", name=name, options={"depth": int(depth)} if depth else {}))
    torchvision = [Subject(source="torchvision", name=name) for name in TORCHVISION.split()]
    transformers = [Subject(source="transformers", name=name) for name in TRANSFORMERS.split()]
    return list({each.key: each for each in (*timm, *torchvision, *transformers)}.values())
