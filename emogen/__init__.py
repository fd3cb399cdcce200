"""emogen composes piano music for a wanted emotion and an exact length.

    import emogen

    voice = emogen.load()
    piece = voice.compose("sad", seconds=45, key="Am", seed=7)
    piece.save("cue.mid")

Importing this imports nothing else: each name below comes from its own module when it is first used.
"""

__version__ = "0.4.0"

__all__ = ["EMOTIONS", "Chart", "EmogenError", "Piece", "Voice", "__version__", "evaluate", "load"]

TYPE_CHECKING = False  # type checkers know the name; typing itself would take most of the time of this import
if TYPE_CHECKING:
    from emogen.composing.piece import Piece
    from emogen.composing.voice import Voice, load
    from emogen.emotion import EMOTIONS
    from emogen.errors import EmogenError
    from emogen.evaluation.beside import evaluate
    from emogen.music.chart import Chart
else:
    _HOMES = {
        "Chart": "emogen.music.chart",
        "Piece": "emogen.composing.piece",
        "Voice": "emogen.composing.voice",
        "load": "emogen.composing.voice",
        "evaluate": "emogen.evaluation.beside",
        "EMOTIONS": "emogen.emotion",
        "EmogenError": "emogen.errors",
    }

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module 'emogen' has no attribute '{name}'")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value

    def __dir__():
        return __all__
