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
    this.turn = null; // from start to stop: an AbortController, so that what arrives after the stop is let go
  }

  // Resolves to whether the camera runs now by this start; one that is already starting or running is left as it is.
  async start() {
    if (!navigator.mediaDevices) throw new Error("the browser gives no camera to this address; use localhost or https");
    if (this.turn) return false;
    this.turn = new AbortController();
    const { signal } = this.turn;
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
      if (signal.aborted) endTracks(stream);
      else await this.show(stream);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    if (!signal.aborted) this.watch(signal);
    return !signal.aborted;
  }

  async show(stream) {
    this.stream = stream;
    this.video.srcObject = stream;
    await this.video.play();
  }

  stop() {
    this.turn?.abort();
    this.turn = null;
    if (this.stream) endTracks(this.stream);
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

  async watch(signal) {
    while (!signal.aborted) {
      if (this.video.videoWidth && !document.hidden) {
        try {
          const row = await predict("camera.jpg", await this.still(), signal);
          if (!signal.aborted) this.onRow(row);
        } catch (error) {
          if (!signal.aborted) this.onError(error);
        }
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }
}

function endTracks(stream) {
  stream.getTracks().forEach((track) => track.stop());
}
