"""A window that shows annotated frames, where OpenCV was built with one."""

from typing import Any

from maskfast.apps.video.frames import Pixels, hide_login
from maskfast.core.errors import ConfigError
from maskfast.core.extras import import_extra

ESCAPE, Q = 27, ord("q")


class Window:
    """Shows frames until its user presses q or Escape."""

    def __init__(self, title: str) -> None:
        self.title = f"maskfast: {hide_login(title)}"
        self._cv2: Any = import_extra("cv2", "video")
        try:
            self._cv2.namedWindow(self.title, self._cv2.WINDOW_NORMAL)
        except self._cv2.error as error:
            raise ConfigError(
                "no window can be opened here; add --headless, or install opencv-python instead of "
                "opencv-python-headless on a machine with a screen"
            ) from error

    def show(self, drawn: Pixels) -> bool:
        """Show one frame; False once the user asked to end."""
        self._cv2.imshow(self.title, drawn)
        return self._cv2.waitKey(1) & 0xFF not in (ESCAPE, Q)

    def close(self) -> None:
        """Close the window."""
        self._cv2.destroyAllWindows()
