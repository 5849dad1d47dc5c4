"""The models: VIB, VAE and VDB on one base."""
