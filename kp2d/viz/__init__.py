"""Drawing only: matches, keypoints, charts, and the interactive viewer."""
