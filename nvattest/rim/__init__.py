"""Reference manifests: their names, their strict reading, their verification, their binding to a device."""
