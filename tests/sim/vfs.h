/* SQLite over the simulated disks. */
#pragma once

void vfs_register(void); /* once; becomes the default VFS */
