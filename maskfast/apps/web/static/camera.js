// The camera: shows its picture, asks the server about two frames a second, and hands out stills.

import { predict } from "./api.js";

const PAUSE = 350; // milliseconds between an answer and the next frame
const SIDE = 960;

export class Camera {
  constructor(video, { onRow, onError }) {
    this.video = video;
    this.onRow = onRow;
    this.onError = onError;
    this.stream = null;
  }

  async start() {
    if (!navigator.mediaDevices) throw new Error("the browser gives no camera to this address; use localhost or https");
    this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
    this.video.srcObject = this.stream;
    await this.video.play();
    this.watch(this.stream);
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
  }

  // Resolves to a JPEG of what the camera sees now.
  still() {
    const { videoWidth, videoHeight } = this.video;
    const scale = Math.min(1, SIDE / Math.max(videoWidth, videoHeight));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(videoWidth * scale);
    canvas.height = Math.round(videoHeight * scale);
    canvas.getContext("2d").drawImage(this.video, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
  }

  async watch(stream) {
    while (this.stream === stream) {
      if (this.video.videoWidth && !document.hidden) {
        try {
          const row = await predict("camera.jpg", await this.still());
          if (this.stream === stream) this.onRow(row);
        } catch (error) {
          this.onError(error);
        }
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }
}
