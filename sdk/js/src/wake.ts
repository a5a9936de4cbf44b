/** What the browser says about the network and the page. Where it says nothing (Node), nothing is called. */
export function watchEnvironment(online: () => void, offline: () => void): () => void {
  const scope = globalThis as Partial<Pick<Window, "addEventListener" | "removeEventListener" | "document">>;
  const visible = () => {
    if (scope.document!.visibilityState === "visible") online();
  };
  scope.addEventListener?.("online", online);
  scope.addEventListener?.("offline", offline);
  scope.document?.addEventListener("visibilitychange", visible);
  return () => {
    scope.removeEventListener?.("online", online);
    scope.removeEventListener?.("offline", offline);
    scope.document?.removeEventListener("visibilitychange", visible);
  };
}
