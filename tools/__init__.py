"""Programs that developers run: load, faults, hosts, browser, benchmarks."""
