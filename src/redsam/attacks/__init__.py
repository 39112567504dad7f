"""Attacks: one gradient loop with parts (loop.py, parts.py), one public call (base.py), one recipe per paper."""
