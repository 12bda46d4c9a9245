"""Words that Florence-2's phrase grounding drops from its answers: pronouns and fillers name nothing to look for.

Origin: `banned_grounding_tokens` of Florence-2's processor configuration (MIT).
"""

_PHRASES = """
a, a group, a set, all, an, another, any, anybody, anyone, anything, each, each other, everybody, everyone, everything,
few, he, her, hers, herself, him, himself, his, I, image, images, it, its, itself, lots, many, me, mine, myself, nobody,
none, one, one another, oneself, other objects, our, ours, ourselves, several, she, some, somebody, someone, something,
that, the, the image, their, theirs, them, themselves, these, they, this, those, us, we, what, which, who, whom, whose,
you, your, yours, yourself, yourselves
"""

GROUNDING_FILLERS = frozenset(phrase.strip() for phrase in _PHRASES.replace("\n", " ").split(","))
"""Compared as they stand: "I" is one, "It" isn't."""
