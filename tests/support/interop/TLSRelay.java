import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLServerSocketFactory;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;

/**
 * Java's TLS in front of a program that speaks none: forwards connections to a port of this machine.
 *
 * java TLSRelay.java client VERSION PORT    takes plain connections, and calls the port over TLS
 * java TLSRelay.java server VERSION PORT    takes TLS connections, demands a certificate, calls the port in plain
 *
 * The keys are those of the properties javax.net.ssl.*. It prints "listening on 127.0.0.1:PORT".
 */
class TLSRelay {
    public static void main(String[] arguments) throws IOException {
        boolean isClient = arguments[0].equals("client");
        String[] versions = {arguments[1]};
        int port = Integer.parseInt(arguments[2]);
        InetAddress here = InetAddress.getByName("127.0.0.1");
        ServerSocket listening;
        if (isClient) {
            listening = new ServerSocket(0, 50, here);
        } else {
            SSLServerSocket secure =
                    (SSLServerSocket) SSLServerSocketFactory.getDefault().createServerSocket(0, 50, here);
            secure.setEnabledProtocols(versions);
            secure.setNeedClientAuth(true);
            listening = secure;
        }
        System.out.println("listening on 127.0.0.1:" + listening.getLocalPort());
        while (true) {
            Socket from = listening.accept();
            Socket to;
            if (isClient) {
                SSLSocket secure = (SSLSocket) SSLSocketFactory.getDefault().createSocket("localhost", port);
                secure.setEnabledProtocols(versions);
                SSLParameters parameters = secure.getSSLParameters();
                parameters.setEndpointIdentificationAlgorithm("HTTPS");
                secure.setSSLParameters(parameters);
                to = secure;
            } else {
                to = new Socket(here, port);
            }
            new Thread(() -> forward(from, to)).start();
            new Thread(() -> forward(to, from)).start();
        }
    }

    private static void forward(Socket from, Socket to) {
        try (from; to) {
            InputStream input = from.getInputStream();
            OutputStream output = to.getOutputStream();
            byte[] octets = new byte[65536];
            for (int length = input.read(octets); length >= 0; length = input.read(octets)) {
                output.write(octets, 0, length);
                output.flush();
            }
        } catch (IOException error) {
            System.out.println(error);
        }
    }
}
