/** Reports what the browser knows about the network and the page. In Node neither function is called. */
export function watchEnvironment(online: () => void, offline: () => void): () => void {
  const scope = globalThis as Partial<Pick<Window, "addEventListener" | "removeEventListener" | "document">>;
  const { document } = scope;
  const visible = () => document!.visibilityState === "visible" && online();
  const listen = (method: "addEventListener" | "removeEventListener") => {
    scope[method]?.("online", online);
    scope[method]?.("offline", offline);
    document?.[method]("visibilitychange", visible);
    document?.[method]("resume", online); // a frozen page runs again
  };
  listen("addEventListener");
  return () => listen("removeEventListener");
}
