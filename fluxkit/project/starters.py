"""The prompts that a new project starts with."""

from collections.abc import Mapping
from types import MappingProxyType

# `{subject}` is filled in once, when the project is made; `{trigger}` stays, so that the trigger can change later.
STARTER_PROMPTS: Mapping[str, str] = MappingProxyType(
    {
        "headshot": "{trigger} a professional headshot of a {subject}, neutral grey background, soft studio light, "
        "85mm lens, sharp focus on the eyes",
        "book": "{trigger} a {subject} sitting on a chair outdoors, focused on an open book, a table with a cup of "
        "coffee in front, trees and a blue sky behind",
        "canyon": "{trigger} a {subject} standing at the edge of a cliff at sunset above a vast canyon, glowing "
        "orange and red light, wind in the air, a look of awe",
        "neon_street": "{trigger} a {subject} walking down a busy city street at night, neon lights reflecting on "
        "the wet pavement, cinematic, shallow depth of field",
        "mountain_lake": "{trigger} a cheerful {subject} beside a sparkling mountain lake, towering pines and a "
        "snow-capped peak in the background, a backpack, morning light",
        "library": "{trigger} a {subject} in a grand library with towering shelves of old books, warm lamp light, "
        "dust in the air, thoughtful expression",
        "astronaut": "{trigger} a {subject} in a white spacesuit without a helmet, standing in a spaceship's window "
        "bay, a galaxy of stars outside, soft blue light",
        "oil_portrait": "{trigger} an oil painting of a {subject} in Renaissance clothing, velvet and dark "
        "background, dramatic side light, fine brushwork",
    }
)


def starter_prompts(subject: str) -> dict[str, str]:
    """The starter prompts about a `subject`, still with `{trigger}` in them."""
    return {name: text.replace("{subject}", subject) for name, text in STARTER_PROMPTS.items()}
