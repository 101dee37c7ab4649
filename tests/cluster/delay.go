// delay QUEUE TIME: holds each packet of a netfilter queue for a while, 20ms for example, and lets it go on.
package main

import (
	"context"
	"log"
	"os"
	"strconv"
	"time"

	nfqueue "github.com/florianl/go-nfqueue/v2"
	"github.com/mdlayher/netlink"
)

type packet struct {
	id  uint32
	due time.Time
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: delay QUEUE TIME")
	}
	number, err := strconv.ParseUint(os.Args[1], 10, 16)
	check(err)
	delay, err := time.ParseDuration(os.Args[2])
	check(err)
	const room = 65535
	queue, err := nfqueue.Open(&nfqueue.Config{
		NfQueue:     uint16(number),
		MaxQueueLen: room,
		// Whole, as the sender's kernel made it, and none of its content.
		Copymode: nfqueue.NfQnlCopyMeta,
		Flags:    nfqueue.NfQaCfgFlagGSO,
	})
	check(err)
	check(queue.SetOption(netlink.NoENOBUFS, true))
	held := make(chan packet, room)
	arrived := func(attributes nfqueue.Attribute) int {
		held <- packet{*attributes.PacketID, time.Now().Add(delay)}
		return 0
	}
	failed := func(err error) int {
		log.Print(err)
		return 0
	}
	check(queue.RegisterWithErrorFunc(context.Background(), arrived, failed))
	// One after the other: none overtakes another.
	for next := range held {
		time.Sleep(time.Until(next.due))
		check(queue.SetVerdict(next.id, nfqueue.NfAccept))
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
