"""Words for moods, and where they lie on the plane of valence and arousal.

The circle is that of J. A. Russell, "A circumplex model of affect", Journal of Personality and Social Psychology 39
(1980): 28 words, scaled in degrees from pleasure (0) over arousal (90), displeasure (180) and sleepiness (270). A word
that he did not scale stands where those that dictionaries give as its nearest synonyms do: that choice is ours.
"""

from __future__ import annotations

import math

DEGREES = {
    "happy": 7.8, "delighted": 24.9, "excited": 48.6, "astonished": 69.8, "aroused": 73.8, "tense": 92.8,
    "alarmed": 96.5, "angry": 99.0, "afraid": 116.0, "annoyed": 123.0, "distressed": 138.0, "frustrated": 141.0,
    "miserable": 188.7, "sad": 207.5, "gloomy": 209.0, "depressed": 210.8, "bored": 241.9, "droopy": 256.7,
    "tired": 267.7, "sleepy": 271.9, "calm": 316.2, "relaxed": 318.0, "satisfied": 319.0, "at ease": 321.0,
    "content": 323.0, "serene": 328.6, "glad": 349.0, "pleased": 353.2,
}  # fmt: skip
"""Russell's circular scaling."""

SYNONYMS = {
    "happy": "cheerful merry jolly light-hearted lighthearted sunny bright",
    "delighted": "joyous elated playful festive upbeat whimsical jubilant",
    "excited": "energetic lively ecstatic euphoric exuberant triumphant victorious enthusiastic heroic",
    "aroused": "epic intense dramatic passionate",
    "tense": "anxious nervous uneasy worried restless suspenseful agitated stressed jittery mysterious eerie ominous "
    "menacing scary frightening spooky",
    "alarmed": "panicked frantic",
    "angry": "furious enraged raging aggressive hostile fierce violent",
    "annoyed": "irritated bitter",
    "distressed": "desperate upset troubled anguished",
    "miserable": "heartbroken wretched",
    "sad": "sorrowful mournful tearful grieving regretful lonely",
    "gloomy": "melancholic melancholy somber sombre bleak dark dismal",
    "depressed": "hopeless despairing dejected",
    "bored": "dull indifferent",
    "tired": "weary exhausted",
    "sleepy": "drowsy",
    "calm": "quiet still meditative soothing",
    "relaxed": "mellow laid-back",
    "satisfied": "grateful",
    "at ease": "carefree comforting",
    "content": "contented warm gentle",
    "serene": "tranquil tender",
    "glad": "romantic loving",
    "pleased": "hopeful optimistic",
    "sad content": "nostalgic bittersweet wistful longing",
    "sad calm": "pensive reflective",
    "sleepy serene": "dreamy",
    "happy excited": "proud majestic",
}
"""Words that stand at one of Russell's, or midway between two of them."""

NEUTRAL = "neutral"
"""The word for the centre."""

WORDS: dict[str, tuple[str, ...]] = {word: (word,) for word in DEGREES}
"""The words of Russell's beside or between which each known word stands."""
for _places, _words in SYNONYMS.items():
    _named = (_places,) if _places in DEGREES else tuple(_places.split())
    WORDS |= dict.fromkeys(_words.split(), _named)


def place(word: str) -> tuple[float, float] | None:
    """Valence and arousal, -1 to 1, of a word for a mood; None if it is not known."""
    if word == NEUTRAL:
        return 0.0, 0.0
    named = WORDS.get(word)
    if named is None:
        return None
    angles = [math.radians(DEGREES[one]) for one in named]
    x, y = (sum(map(wave, angles)) for wave in (math.cos, math.sin))
    return x / math.hypot(x, y), y / math.hypot(x, y)
