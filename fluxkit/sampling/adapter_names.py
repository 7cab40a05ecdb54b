"""Which layers of FLUX's transformer the names in an adapter's file mean, whoever wrote it.

Underscored names are looked up, never guessed at: `to_out_0` could be `to_out.0` or `to.out.0`. The names of Black
Forest Labs' own code (`double_blocks`, `single_blocks`: kohya's sd-scripts, ComfyUI, ai-toolkit) stand for one or more
of diffusers' layers; the table is checked in the tests against diffusers' own converter.
"""

import re
from collections.abc import Callable, Iterable, Mapping

_BLOCK = re.compile(r"(double|single)_blocks_(\d+)_(\w+)")
_DOUBLE = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_proj": ("attn.to_out.0",),
    "img_mlp_0": ("ff.net.0.proj",),
    "img_mlp_2": ("ff.net.2",),
    "img_mod_lin": ("norm1.linear",),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn_proj": ("attn.to_add_out",),
    "txt_mlp_0": ("ff_context.net.0.proj",),
    "txt_mlp_2": ("ff_context.net.2",),
    "txt_mod_lin": ("norm1_context.linear",),
}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_lin": ("norm.linear",),
}
# Keys begin so: SimpleTuner's LyCORIS, PEFT in diffusers' form, PEFT's own form, kohya, ComfyUI, OneTrainer.
PREFIXES = (
    "lycoris_",
    "transformer.",
    "base_model.model.",
    "lora_unet_",
    "diffusion_model.",
    "lora_transformer_",
)
TEXT_ENCODERS = ("lora_te", "text_encoder", "lycoris_te")
_PARAMETER = re.compile(
    r"\.(lora_A|lora_B|lora_down|lora_up|lokr_w[12](?:_[ab])?|hada_w[12]_[ab]|alpha)(?:\.default)?(?:\.weight)?$"
)

Finder = Callable[[str], tuple[str, ...]]


def split_key(key: str) -> tuple[str, str] | None:
    """A tensor's key as the module's name, prefix included, and its parameter; None if it is no adapter's."""
    found = _PARAMETER.search(key)
    if found is None or not key.startswith(PREFIXES):
        return None
    return key[: found.start()], found[1]


def layer_finder(layers: Iterable[str]) -> Finder:
    """What finds the layers that a module's name means, in the order of its rows; none for a stranger.

    Args:
        layers: dotted paths of the transformer's linear layers.
    """
    dotted = set(layers)
    underscored: Mapping[str, str] = {path.replace(".", "_"): path for path in dotted}

    def find(name: str) -> tuple[str, ...]:
        prefix = next((one for one in PREFIXES if name.startswith(one)), "")
        rest = name.removeprefix(prefix)
        if rest in dotted:
            return (rest,)
        flat = rest.replace(".", "_")
        if flat in underscored and not prefix.endswith("."):
            return (underscored[flat],)
        block = _BLOCK.fullmatch(flat)
        if block is None or prefix not in ("lora_unet_", "diffusion_model."):
            return ()
        kind, number, part = block.groups()
        table, folder = (_DOUBLE, "transformer_blocks") if kind == "double" else (_SINGLE, "single_transformer_blocks")
        paths = tuple(f"{folder}.{number}.{end}" for end in table.get(part, ()))
        return paths if all(path in dotted for path in paths) else ()

    return find
