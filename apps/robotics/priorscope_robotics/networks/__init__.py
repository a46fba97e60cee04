"""The networks of diffusion policies: a temporal U-Net, a transformer, and the encoder of camera images."""
