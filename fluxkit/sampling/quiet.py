"""The libraries' own chatter, turned off: progress bars and hints that mean nothing to a photographer.

fluxkit's errors and progress lines say what matters; the libraries' bars would tear them apart.
"""

import logging


def quiet_libraries() -> None:
    """Silence diffusers and transformers (bars, advice about torchvision, "keep in float32: []")."""
    # Diffusers imports bitsandbytes where it is installed; on a CPU that advises to install a kernel nobody uses here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
