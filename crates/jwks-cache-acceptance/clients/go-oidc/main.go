// go-oidc beside the server: `main JWKS_URL ISSUER`. Each line of standard input is an algorithm and a token; each is
// answered by a line that begins with `ok` or `no`.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	oidc "github.com/coreos/go-oidc"
)

func main() {
	ctx := context.Background()
	keys := oidc.NewRemoteKeySet(ctx, os.Args[1])
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		alg, token, _ := strings.Cut(lines.Text(), " ")
		rules := &oidc.Config{ClientID: "urn:resource:" + alg, SupportedSigningAlgs: []string{alg}}
		verified, err := oidc.NewVerifier(os.Args[2], keys, rules).Verify(ctx, token)
		if err != nil {
			fmt.Println("no", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		var claims struct {
			ClientID string `json:"client_id"`
		}
		err = verified.Claims(&claims)
		fmt.Println("ok", claims.ClientID, err)
	}
}
