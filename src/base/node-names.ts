/**
 * The URI that names a node in a certificate, as one of its subject alternative names. A certificate without such a URI
 * may authenticate a client, but never a node.
 */
export function nodeUri(clusterName: string, nodeId: number): string {
  return `raftkv://${clusterName}/node/${nodeId}`;
}

/** @param alternativeNames the subject alternative names of a certificate, as Node.js formats them. */
export function isNodeCertificate(alternativeNames: string | undefined, clusterName: string, nodeId: number): boolean {
  // Node.js quotes names that contain separators. Such a name could contain the text of ours, which is never quoted.
  if (alternativeNames === undefined || alternativeNames.includes('"')) return false;
  return alternativeNames.split(', ').includes(`URI:${nodeUri(clusterName, nodeId)}`);
}
