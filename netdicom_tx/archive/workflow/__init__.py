"""The services for modalities and RIS: worklist, performed steps and commitment, with the outbound queue."""
