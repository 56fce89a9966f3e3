// Command device-plugin tells a kubelet of devices that are not there, so that pods that ask for a GPU are scheduled, started
// and accounted for on a machine without one. A container gets nothing but two environment variables.
//
// It speaks the kubelet's device plugin API, v1beta1. A kubelet that starts anew removes the plugins' sockets; this program
// then registers again.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	// Where every kubelet listens for plugins; the path is part of the API.
	directory = "/var/lib/kubelet/device-plugins"
	// How often a plugin looks whether its socket, or the kubelet's, was made anew.
	lookEvery = 500 * time.Millisecond
	// A kubelet on a busy machine answers late.
	registerLimit = 10 * time.Second
)

type plugin struct {
	api.UnimplementedDevicePluginServer
	devices []*api.Device
	ended   <-chan struct{}
}

func (p plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (p plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	if err := stream.Send(&api.ListAndWatchResponse{Devices: p.devices}); err != nil {
		return err
	}
	select {
	case <-stream.Context().Done():
	case <-p.ended:
	}
	return nil
}

func (p plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		ids := strings.Join(container.DevicesIds, ",")
		answer.ContainerResponses = append(answer.ContainerResponses, &api.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": ids, "NAGI_STAND_IN_DEVICES": ids},
		})
	}
	return answer, nil
}

func main() {
	resource := flag.String("resource", "nvidia.com/gpu", "the resource that the devices count as")
	count := flag.Int("count", 1, "how many devices there are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	for ctx.Err() == nil {
		if err := serve(ctx, *resource, *count); err != nil && ctx.Err() == nil {
			log.Printf("The kubelet does not know the devices, trying again: %v", err)
			select {
			case <-ctx.Done():
			case <-time.After(lookEvery):
			}
		}
	}
}

// serve registers once and returns when the kubelet was started anew.
func serve(ctx context.Context, resource string, count int) error {
	name := "stand-in-" + strings.NewReplacer("/", "-", ".", "-").Replace(resource) + ".sock"
	socket := filepath.Join(directory, name)
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	served := plugin{ended: ended}
	for number := range count {
		served.devices = append(served.devices, &api.Device{ID: fmt.Sprintf("stand-in-%d", number), Health: api.Healthy})
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, served)
	go server.Serve(listener)
	defer server.Stop()
	defer close(ended)
	if err := register(ctx, name, resource); err != nil {
		return err
	}
	log.Printf("The kubelet knows %d of %s", count, resource)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookEvery):
		}
		if _, err := os.Stat(socket); err != nil {
			return fmt.Errorf("the socket is gone, so the kubelet was started anew: %w", err)
		}
	}
}

func register(ctx context.Context, name, resource string) error {
	connection, err := grpc.NewClient("unix://"+filepath.Join(directory, "kubelet.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	limited, cancel := context.WithTimeout(ctx, registerLimit)
	defer cancel()
	_, err = api.NewRegistrationClient(connection).Register(limited, &api.RegisterRequest{
		Version:      api.Version,
		Endpoint:     name,
		ResourceName: resource,
		Options:      &api.DevicePluginOptions{},
	})
	return err
}
