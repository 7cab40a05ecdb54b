"""Is the subject a person? Faces, clothes and traits are looked for only then."""

import re

_PEOPLE = frozenset(
    re.findall(
        r"\w+",
        "person people human man woman boy girl guy gal lady gentleman male female child kid baby toddler teenager teen"
        " adult model actor actress singer dancer athlete face portrait bride groom couple self me mother father mom"
        " dad sister brother son daughter wife husband grandmother grandfather grandma grandpa aunt uncle friend",
    )
)


def is_person(subject: str) -> bool:
    """Whether the everyday word for the subject ("a young man") names a person."""
    return any(word in _PEOPLE for word in re.findall(r"[a-z]+", subject.casefold()))
