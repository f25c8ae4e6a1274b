"""Scores: metrics, evaluation of data sets, intervals, studies, tables (notebooks 05 and 06)."""
