raise RuntimeError("it is off")
