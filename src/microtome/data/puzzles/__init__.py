"""Puzzles that tell recalling a fact from reasoning with it; no torch."""

from microtome.data.puzzles.generate import Puzzle, PuzzleSplit, make_puzzles, pairs_of, split_puzzles
from microtome.data.puzzles.paper import PaperPair, paper_pairs
from microtome.data.puzzles.render import SKELETONS, Cell, Skeleton, Variant

__all__ = [
    "SKELETONS",
    "Cell",
    "PaperPair",
    "Puzzle",
    "PuzzleSplit",
    "Skeleton",
    "Variant",
    "make_puzzles",
    "pairs_of",
    "paper_pairs",
    "split_puzzles",
]
