"""The web site of results, notebooks, pictures and matches (`kp2d report`)."""
