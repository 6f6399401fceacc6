/*
 * The executable as seen from a container. While we are inside, /proc/PID/exe leads to our binary; a program
 * named "#!/proc/self/exe" even makes the kernel run it there. Who holds that link can wait until nobody
 * executes the file and then write to it, and owns the host at the next container.
 *
 * So the verbs that enter a container run from a private read-only mount of the binary, where no file can be
 * opened for writing; or, where such a mount may not be made, from a sealed copy in memory.
 */
#include "container/guard.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "container/sys.h"

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static bool is_guarded(int exe)
{
    struct statvfs fs;

    if (fcntl(exe, F_GET_SEALS) == SEALS)
        return true;
    return fstatvfs(exe, &fs) == 0 && (fs.f_flag & ST_RDONLY);
}

static int readonly_mount(void)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    int fd = sys_open_tree(AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (fd < 0)
        return -errno;
    if (sys_mount_setattr(fd, "", AT_EMPTY_PATH, &attr) < 0) {
        close(fd);
        return -EPERM;
    }
    return fd;
}

static int sealed_copy(int exe)
{
    int fd = memfd_create("trapeze-oci", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct stat st;
    off_t left;

    if (fd < 0 || fstat(exe, &st) < 0)
        return -errno;
    for (left = st.st_size; left > 0;) {
        ssize_t n = sendfile(fd, exe, NULL, (size_t)left);

        if (n <= 0)
            break;
        left -= n;
    }
    if (left == 0 && fcntl(fd, F_ADD_SEALS, SEALS) == 0)
        return fd;
    close(fd);
    return -EIO;
}

int guard_self(char **argv, struct err *err)
{
    auto_close int exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), copy = -1;

    if (exe < 0)
        return err_sys(err, errno, "open /proc/self/exe");
    if (is_guarded(exe))
        return 0;
    copy = readonly_mount();
    if (copy < 0)
        copy = sealed_copy(exe);
    if (copy < 0)
        return err_sys(err, -copy, "protect the runtime's executable");
    syscall(SYS_execveat, copy, "", argv, environ, AT_EMPTY_PATH);
    return err_sys(err, errno, "execute the protected copy of the runtime");
}
