"""What a run takes in tokens, memory, disk, network and time, as functions of plain numbers."""
