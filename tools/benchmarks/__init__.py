"""The service's speed beside that of its peers, in ratios: ``scripts/bench``.

__main__        the options; runs the cases
report, plot    RESULTS.md and results.svg
targets         what is to be reached
machine         what it was measured on
rounds          the rounds of a case, in each of which all peers have their turn
cases           what is measured of whom
measures        how
results         values by case, peer and round; ratios and their spread
load, wrk       the clients
lab             the origins and the peers as they run
peer            the peers: what they are called, how they are started (applications in peers/)
nginx, capped   the origins; nginx as a peer
process         a process with its children: CPU, memory, end
scale           how much: the sizes and counts of a full run and of a quick one
"""
