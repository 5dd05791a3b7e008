"""What completes ``fastloop.loop.Loop``; nothing here is for programs."""
