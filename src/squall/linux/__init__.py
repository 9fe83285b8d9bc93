"""The Linux kernel behind the ports of injection.world."""
