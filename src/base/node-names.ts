/**
 * The name by which a certificate says whose it is: a URI among its alternative names. A certificate without it may be
 * good for a client, and is never good for a node.
 */
export function nodeUri(clusterName: string, nodeId: number): string {
  return `raftkv://${clusterName}/node/${nodeId}`;
}

/** Whether a certificate with these alternative names, as Node.js prints them, is the node's. */
export function isNodeCertificate(alternativeNames: string | undefined, clusterName: string, nodeId: number): boolean {
  // A name that had to be quoted could hold what looks like another name. None of ours has to.
  if (alternativeNames === undefined || alternativeNames.includes('"')) return false;
  return alternativeNames.split(', ').includes(`URI:${nodeUri(clusterName, nodeId)}`);
}
