"""Rendered scenes with exact masks: what the demo weights learn from, and what tests and benchmarks look at.

A scene is made by a split and an index and nothing else, so every scene can be made again. `shapes` holds the outlines,
`render` places and paints them, `questions` asks about them.
"""

from grounded_seg.scenes.questions import Question, QuestionKind, ask
from grounded_seg.scenes.render import Scene, SceneObject, Split, render_scene
from grounded_seg.scenes.shapes import COLOURS, KINDS

__all__ = ["COLOURS", "KINDS", "Question", "QuestionKind", "Scene", "SceneObject", "Split", "ask", "render_scene"]
