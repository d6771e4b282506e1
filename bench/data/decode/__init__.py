"""Frames out of video files and folders of pictures: `open.open_video` is the one door."""
