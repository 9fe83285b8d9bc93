// Command coredns answers the names of Services in the clusters of the tests: CoreDNS with the
// plugins that their configuration uses, and no others.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

// A request goes through the plugins in this order.
var order = []string{"bind", "ready", "errors", "loadbalance", "cache", "kubernetes", "template"}

func main() {
	dnsserver.Directives = order
	coremain.Run()
}
