/* An agent of seccomp filters (seccomp_unotify(2)): agent SOCKET prints each container process state
   that it is sent, and answers each call that is left to it with ENETDOWN, for ever. */
#include <errno.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void answer(int filter) {
  for (;;) {
    struct seccomp_notif call;
    struct seccomp_notif_resp answer;
    memset(&call, 0, sizeof call);
    memset(&answer, 0, sizeof answer);
    if (ioctl(filter, SECCOMP_IOCTL_NOTIF_RECV, &call)) {
      if (errno == EINTR) continue;
      _exit(0);
    }
    answer.id = call.id;
    answer.error = -ENETDOWN;
    ioctl(filter, SECCOMP_IOCTL_NOTIF_SEND, &answer);
  }
}

int main(int argc, char **argv) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  strncpy(address.sun_path, argv[argc - 1], sizeof address.sun_path - 1);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8)) return 1;
  for (;;) {
    static char text[1 << 16], control[256];
    struct iovec place = {text, sizeof text - 1};
    struct msghdr message = {.msg_iov = &place, .msg_iovlen = 1,
                             .msg_control = control, .msg_controllen = sizeof control};
    int connection = accept(listener, 0, 0), filter;
    ssize_t length = recvmsg(connection, &message, 0);
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    if (length < 0 || !rights) return 2;
    memcpy(&filter, CMSG_DATA(rights), sizeof filter);
    text[length] = 0;
    printf("%s\n", text);
    fflush(stdout);
    if (!fork()) answer(filter);
    close(filter);
    close(connection);
  }
}
