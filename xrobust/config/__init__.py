"""Configuration: schema, checks and instantiation. The only room that knows Hydra and OmegaConf."""
