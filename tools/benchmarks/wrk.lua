-- Says what was measured in one line, for wrk.py: its own report rounds.
done = function(summary, latency, requests)
  local failed = summary.errors
  io.write(string.format("measured %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
