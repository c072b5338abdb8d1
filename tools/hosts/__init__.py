"""Run each example under each server, and check what downspout promises."""
