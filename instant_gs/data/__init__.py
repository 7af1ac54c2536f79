"""Teacher packs: format, packer, reader, validator, and the Grain training pipeline."""
