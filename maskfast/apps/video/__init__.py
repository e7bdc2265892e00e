"""Cameras, streams and video files: frames in, events of somebody wearing a mask out."""
