"""Lipschitz constants of networks in L2: operator norms of layers, composition along the graph, certificates."""
