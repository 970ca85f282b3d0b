"""A brain near its equilibrium: fixed points, linear response, stability and
bifurcations."""
